#!/bin/sh
# setup.sh PYTHON VENV: make the virtual environment VENV and install Foveal with its video, bench and dev extras in it.
set -eu
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Foveal needs Python 3.11 or newer; $python is older. Name another one: make PYTHON=python3.12 ..." >&2
    exit 1
}
echo "setting up $venv, once; this takes a minute or two" >&2
# Some distributions ship venv without its own pip: then the outer pip furnishes it.
[ -x "$venv/bin/pip" ] || "$python" -m venv --clear "$venv" || {
    "$python" -m venv --clear --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install pip
}
# torch first and alone: its pin picks the small build where one is at hand.
"$venv/bin/python" -m pip install --quiet -c constraints.txt "$(grep '^torch==' constraints.txt)"
"$venv/bin/python" -m pip install --quiet -c constraints.txt -e '.[video,bench,dev]'
