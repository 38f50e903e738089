#!/bin/sh
# Fetches NVRTC from PyPI into a virtual environment and compiles every kernel with it. No GPU is
# needed. Usage: nvrtc.sh [cu12|cu13] [FOLDER]
set -eu
version=${1:-cu13}
folder=${2:-${TMPDIR:-/tmp}/sandcast-nvrtc}
case $version in
cu12) package=nvidia-cuda-nvrtc-cu12 ;;
cu13) package=nvidia-cuda-nvrtc ;;
*)
    echo "usage: nvrtc.sh [cu12|cu13] [FOLDER]" >&2
    exit 2
    ;;
esac
[ -x "$folder/$version/bin/pip" ] || python3 -m venv "$folder/$version"
"$folder/$version/bin/pip" install --quiet --disable-pip-version-check "$package"
library=$(find "$folder/$version" -name 'libnvrtc.so.*' | head -n 1)
SANDCAST_CUDA_LIBRARIES=$(dirname "$library")
export SANDCAST_CUDA_LIBRARIES
cd "$(dirname "$0")/.."
exec cargo test -p sandcast-kernels --test programs nvrtc:: -- --nocapture
