import lazy_loader

# The public names stand in __init__.pyi. A name is imported when it is first used: charts, metrics and the card need
# libraries that take longer to import than the Trainer, and a training script does not need them before its end.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
