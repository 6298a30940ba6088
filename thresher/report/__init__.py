"""Tables, plots and the HTML report of a pruned model.

The modules are imported by name: :mod:`thresher.report.html` writes the report,
:mod:`thresher.report.tables` makes the tables that a terminal shows.
"""
