"""Several devices, several machines, and several processes on one machine."""
