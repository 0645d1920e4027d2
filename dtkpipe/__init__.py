"""dtkpipe: kernel modules from source to a signed, proven driver container."""

__version__ = "0.1.0"
