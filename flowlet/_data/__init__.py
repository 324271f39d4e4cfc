"""How type hints are data: what the codec, the schemas and the checks of signatures stand on.

Imports point from right to left: ``hints``, ``scalars``, ``faults``; ``shapes``; ``shaping``, ``words``;
``checking``; ``reading``; ``writing``.
"""
