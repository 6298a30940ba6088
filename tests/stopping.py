"""Stopping a run at one of its steps, as Ctrl-C does."""


def stop(monkeypatch, owner, name: str, call: int, after: bool = False) -> list[str]:
    """Have a function stop the process at one of its calls, before or after its work.

    Returns
    -------
    list of str
        Grows by an entry with every call.
    """
    real, calls = getattr(owner, name), []

    def stopping(*args, **keywords):
        calls.append(name)
        if len(calls) == call and not after:
            raise KeyboardInterrupt
        result = real(*args, **keywords)
        if len(calls) == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, stopping)
    return calls
