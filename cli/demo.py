"""`drnet demo`."""


def demo() -> None:
    pass
