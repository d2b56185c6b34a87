#!/usr/bin/env bash
# Installs immunogate on a Jetson with JetPack 6.2 or 7.2, into a virtual environment that sees the system's packages:
# TensorRT's Python bindings and an OpenCV with GStreamer come from the system and from nowhere else.
# It was not run on a Jetson yet: see docs/jetson.md for what was checked. It may be run again at any time.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/jetson_setup.sh [--dry-run] [--venv FOLDER] [--jetpack 6.2|7.2] [--onnxruntime WHEEL] [--no-pycuda]

  --dry-run            print what would be done and do nothing
  --venv FOLDER        where to install (default .venv-jetson in the checkout)
  --jetpack VERSION    do not look at /etc/nv_tegra_release, which a container may lack
  --onnxruntime WHEEL  a file or URL of an ONNX Runtime with CUDA for this JetPack, in place of PyPI's, which has none
  --no-pycuda          leave PyCUDA out; cuda-core is there in any case
TEXT
}

fail() {
    echo "jetson_setup: $1" >&2
    exit "${2:-1}"
}

dry=no venv='' jetpack='' wheel='' pycuda=yes
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=yes ;;
        --no-pycuda) pycuda=no ;;
        --venv | --jetpack | --onnxruntime)
            [ $# -ge 2 ] || { usage >&2; fail "$1 needs a value" 2; }
            case $1 in
                --venv) venv=$2 ;;
                --jetpack) jetpack=$2 ;;
                --onnxruntime) wheel=$2 ;;
            esac
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown argument $1" 2 ;;
    esac
    shift
done

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$checkout"
root=${IMMUNOGATE_JETSON_ROOT:-} # tests lay out the files of a Jetson elsewhere
pins=tools/jetson_pins.txt
venv=${venv:-.venv-jetson}

run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    [ "$dry" = yes ] || "$@"
}

# Which JetPack, and with it which Python and which CUDA.
release_file=$root/etc/nv_tegra_release
if [ -z "$jetpack" ]; then
    [ -r "$release_file" ] ||
        fail "this is no Jetson: there is no $release_file. In a container name the JetPack: --jetpack 6.2 or 7.2" 2
    release=$(sed -n '1s/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\),.*/\1.\2/p' "$release_file")
    case $release in
        36.4.[3-9]* | 36.[5-9]*) jetpack=6.2 ;;
        39.*) jetpack=7.2 ;;
        '') fail "$release_file does not tell its release" ;;
        *) fail "L4T $release is neither JetPack 6.2 (L4T 36.4.3 or newer) nor 7.2 (L4T 39): update the board" ;;
    esac
    echo "L4T $release, JetPack $jetpack"
fi
case $jetpack in
    6.2) python=3.10 cuda=12-6 opencv=libopencv-python ;;
    7.2) python=3.12 cuda=13-2 opencv=python3-opencv ;;
    *) fail "JetPack $jetpack is not known here: 6.2 or 7.2" 2 ;;
esac

# What the system has to bring; only what is missing is installed.
packages=(python3-venv python3-dev build-essential python3-libnvinfer "$opencv" "cuda-toolkit-$cuda"
    gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-bad)
status=$root/var/lib/dpkg/status installed=''
[ -r "$status" ] && installed=$(awk '/^Package: /{name=$2} /^Status: install ok installed/{print name}' "$status")
missing=()
for package in "${packages[@]}"; do
    grep -qxF "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    root_do=()
    [ "$(id -u)" = 0 ] || root_do=(sudo)
    run "${root_do[@]}" apt-get update
    run "${root_do[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
fi

# The environment. The system's own interpreter: TensorRT's and OpenCV's modules are built for no other.
system_python=/usr/bin/python3
if [ "$dry" = no ]; then
    found=$("$system_python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ "$found" = "$python" ] || fail "$system_python is Python $found; JetPack $jetpack has $python"
fi
bin=$venv/bin
[ -x "$bin/python" ] || run "$system_python" -m venv --system-site-packages "$venv"
pip=("$bin/python" -m pip --disable-pip-version-check)

# Without --no-deps the last step would bring OpenCV's wheel, which has no GStreamer and would hide the system's. So all
# that immunogate needs but OpenCV is named here; a test holds this list against pyproject.toml.
needed=(numpy threadpoolctl tqdm)
[ "$python" = 3.10 ] && needed+=(tomli)
run "${pip[@]}" install -c "$pins" "${needed[@]}" cuda-core cuda-bindings
if [ -n "$wheel" ]; then
    run "${pip[@]}" uninstall -y onnxruntime onnxruntime-gpu
    run "${pip[@]}" install "$wheel" 'numpy<2'
elif ! "${pip[@]}" show -q onnxruntime-gpu 2>/dev/null; then # one that was given before stays
    run "${pip[@]}" install -c "$pins" onnxruntime
fi
run "${pip[@]}" install --no-deps .
if [ "$pycuda" = yes ] && ! "$bin/python" -c 'import importlib.util as i; assert i.find_spec("pycuda")' 2>/dev/null; then
    run env CUDA_HOME=/usr/local/cuda "$bin/python" tools/make_pycuda.py --pins "$pins"
fi

# What has to be true now, each with what mends it.
[ "$dry" = no ] || { echo "nothing was done"; exit 0; }
"$bin/python" -c 'import cv2, re; assert re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()), cv2.__file__' ||
    fail "OpenCV has no GStreamer: $bin/python -m pip uninstall opencv-python opencv-python-headless, then run this again"
"$bin/python" -c 'import tensorrt; print("TensorRT", tensorrt.__version__)' ||
    fail "TensorRT's Python bindings do not load: sudo apt-get install --reinstall python3-libnvinfer"
"$bin/immunogate" doctor
echo "installed: $bin/immunogate"
