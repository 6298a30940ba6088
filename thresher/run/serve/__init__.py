"""The engine as a server with OpenAI's interface.

``bodies.py`` says what a request may ask for, ``answers.py`` how answers are written,
``scheduler.py`` computes the texts that are under way, in one thread and all of them together,
``replies.py`` brings a text to the client that asked for it, ``routes.py`` puts these together with
``metrics.py``, and ``server.py`` runs them until the process is told to stop.
"""
