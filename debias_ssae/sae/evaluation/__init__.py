"""The field's own measures of a sparse autoencoder: arrays in, flat records out.

A record is a mapping with ``measure``, ``value`` and what tells it from the others (``part``, ``decile``, ``k``,
...), so that lists of them can be joined, filtered and written as JSON. No language model is met here: activations
come in as arrays, and the one measure that needs a model's gradients takes them as an array too.
"""
