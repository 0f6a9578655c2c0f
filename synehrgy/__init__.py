"""SynEHRgy: synthetic electronic health records from a decoder-only transformer."""

__version__ = "0.1.0"
