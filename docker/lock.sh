#!/usr/bin/env bash
# Rewrites docker/requirements-*.txt from setup.py and pyproject.toml: bash docker/lock.sh
#
# They list every package of an image, of the quickstart's environment (requirements-cpu.txt) and of
# the tests' (that and requirements-test.txt), with the hashes of its files. Needs uv (pip install
# uv). Run it after changing a pin in setup.py; tests/docker/test_requirements.py fails if that was
# forgotten.
# Locked versions stay if setup.py allows them: delete a file to get the newest.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
command -v uv >/dev/null || { echo "needs uv: pip install uv" >&2 && exit 2; }
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

pin() { # PACKAGE: its pin in setup.py
    grep -oP "\"\K$1==[^\"]+" setup.py
}

# What differs from setup.py. OpenCV is the headless one, since its windows need libGL; gluoncv
# requires opencv-python by name, and an override that never applies removes that.
pin opencv-python | sed 's/==/-headless==/' >"$work/headless.in"
echo "opencv-python; sys_platform == 'never'" >"$work/overrides.txt"
python3 - >"$work/build.in" <<'END'
import tomllib

with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["build-system"]["requires"]))
print("packaging")  # Horovod's setup.py imports it
END

# Horovod's setup.py looks for CMake.
echo "cmake<4" >"$work/test.in"

lock() { # NAME ARGUMENTS...
    # Only an index: other sources that this machine may be configured to use have other hashes.
    uv pip compile --no-config --quiet --generate-hashes \
        --python-version 3.11.2 --python-platform x86_64-manylinux_2_36 \
        --custom-compile-command "bash docker/lock.sh" --no-annotate \
        --output-file "docker/requirements-$1.txt" "${@:2}"
}

for device in cpu gpu; do
    # What Horovod needs, but not Horovod, which is built after the rest: requirements-horovod.txt.
    lock "$device" setup.py "$work/headless.in" --overrides "$work/overrides.txt" \
        --extra "$device" --extra horovod --extra tensorboard --extra export \
        --no-emit-package horovod
done
pin horovod | lock horovod --no-deps -
lock build "$work/build.in" --constraints docker/requirements-cpu.txt

# What the tests need besides requirements-cpu.txt, at compatible versions: all three files are
# installed together.
mapfile -t cpu < <(grep -oP '^[a-z0-9-]+(?===)' docker/requirements-cpu.txt)
lock test setup.py "$work/headless.in" "$work/test.in" --overrides "$work/overrides.txt" \
    --extra cpu --extra horovod --extra tensorboard --extra export --extra test \
    --constraints docker/requirements-cpu.txt --constraints docker/requirements-build.txt \
    --no-emit-package horovod "${cpu[@]/#/--no-emit-package=}"
