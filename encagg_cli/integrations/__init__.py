"""Adapters to federated-learning frameworks: they record what clients send, and can filter it inside the training.

Each needs its framework, which `encagg` does not install by itself: `pip install 'encagg[flower]'`.
"""
