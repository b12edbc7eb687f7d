"""The parts of `compare.py`: real servers side by side, and what is made of their figures."""
