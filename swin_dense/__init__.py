"""Swin Transformers for detection and segmentation on the OpenMMLab packages."""

import os

__version__ = '0.1.0'

# OpenMP reads both when torch is first imported. By default its threads spin for long at barriers. Where two
# of them share a core, as on a virtual or a busy machine, each then waits out the other's time slice: on two
# virtual cores a training step took 10.2 s, and 0.5 s with threads that sleep at once. Spinning for about as
# long as waking a thread takes makes it 0.4 s.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('GOMP_SPINCOUNT', '10000')  # turns of GNU's spinning loop
