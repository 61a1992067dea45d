"""The C++ decoder and color pass; only data/native.py imports it."""
