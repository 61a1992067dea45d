"""The C++ decoder and colour pass; data/native.py alone imports it."""
