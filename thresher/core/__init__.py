"""What every room uses: errors, options, cards, evidence, files, proximal operators, top-k.

Nothing here imports torch or scikit-learn.
"""
