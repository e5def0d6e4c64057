"""What was handed to a function of a model, for several test files."""


class Spy:
    """Calls a function and keeps what went in."""

    def __init__(self, monkeypatch, owner, name):
        self.function, self.calls = getattr(owner, name), []
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        self.calls.append(args)
        return self.function(*args, **kwargs)
