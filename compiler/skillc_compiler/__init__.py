"""Text to weights: reads skills, compiles them into LoRA adapters, stores them."""

__version__ = "0.1.0"
