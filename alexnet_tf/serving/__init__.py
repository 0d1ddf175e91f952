"""Exported models: signatures, formats, what goes with them, and a client."""
