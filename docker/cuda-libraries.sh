#!/usr/bin/env bash
# Lets the system find the libraries of the CUDA wheels in /opt/venv. The driver's own, libcuda, is
# not one of them: the container toolkit mounts the host's.
set -euo pipefail

printf '%s\n' /opt/venv/lib/python3.11/site-packages/nvidia/*/lib \
    >/etc/ld.so.conf.d/cuda-wheels.conf
ldconfig
