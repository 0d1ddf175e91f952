"""Exported models: signatures, formats, the files that go with them, and a client."""
