# shellcheck shell=bash
# Sourced by ./quickstart and ./check: what a bare Debian or Ubuntu needs before Echelon can be built.
# Prints each step, skips what is there, and ends with the reason of the first failure.

set -Eeuo pipefail

readonly BUILD_PACKAGES=(g++ cmake ninja-build pkg-config git ca-certificates python3 python3-venv libopenmpi-dev
  openmpi-bin libprotobuf-dev protobuf-compiler libgflags-dev libgoogle-glog-dev libgtest-dev libgmock-dev
  nlohmann-json3-dev libfmt-dev libxxhash-dev libzstd-dev libsodium-dev)
readonly TEXT_PACKAGES=(bible-kjv bible-kjv-text manpages manpages-dev debian-reference-en developers-reference)
# What tests start: a Slurm cluster of one node, and two nodes in namespaces.
readonly TEST_PACKAGES=(iproute2 munge slurm-client slurmctld slurmd)
readonly TEXT_FILES=(/usr/share/man/man2/open.2.gz /usr/share/debian-reference/debian-reference.en.txt.gz
  /usr/share/developers-reference/developers-reference.txt.gz)

say() { printf '\n=== %s\n' "$*"; }

stop() {
  printf '\n%s: stopped: %s\n' "$(basename "$0")" "$*" >&2
  exit 3
}

failed() {
  local status=$1 line=$2 command=$3
  printf '\n%s: stopped in line %s: %s ended with %s\n' "$(basename "$0")" "$line" "$command" "$status" >&2
  exit "$status"
}
trap 'failed $? $LINENO "$BASH_COMMAND"' ERR

# as_root COMMAND…: without a terminal nobody can type a password, so sudo must not ask for one.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif ! command -v sudo > /dev/null; then
    stop "installing Debian packages needs root or sudo: $*"
  elif [ -t 0 ]; then
    sudo "$@"
  else
    sudo -n "$@" || stop "sudo asks for a password and there is no terminal: $*"
  fi
}

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)" = installed ] ||
      printf '%s\n' "$package"
  done
}

# install_packages MORE…: what the build and the text need, and MORE.
install_packages() {
  command -v apt-get > /dev/null || stop "this is not Debian or Ubuntu; the packages needed are: ${BUILD_PACKAGES[*]}"
  local missing
  mapfile -t missing < <(missing_packages "${BUILD_PACKAGES[@]}" "${TEXT_PACKAGES[@]}" "$@")
  if [ "${#missing[@]}" -eq 0 ]; then
    say "System packages: all there"
    return
  fi
  say "System packages: installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" \
    > .cache/apt.log 2>&1 || stop "apt-get install failed; its last lines: $(tail -n 5 .cache/apt.log)"
}

# python_packages VENV REQUIREMENTS
python_packages() {
  local wanted
  wanted=$(sha256sum "$2" | cut -d ' ' -f 1)
  if [ -x "$1/bin/python" ] && [ "$(cat "$1/requirements.sha256" 2> /dev/null || true)" = "$wanted" ]; then
    say "Python packages: all there ($1)"
    return
  fi
  say "Python packages: $2 into $1 (about 5 GB, some minutes)"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "Python 3.11 or newer is needed; python3 is $(python3 -V)"
  "$1/bin/python" -m pip --version > /dev/null 2>&1 || python3 -m venv --clear "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --requirement "$2"
  printf '%s\n' "$wanted" > "$1/requirements.sha256"
}

# build TARGET…: a file that includes ATen takes more than a GB while it is compiled.
build() {
  local cores memory_gb jobs
  cores=$(nproc)
  memory_gb=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  jobs=$((memory_gb / 2 < cores ? memory_gb / 2 : cores))
  jobs=$((jobs < 1 ? 1 : jobs))
  say "Build: Release into build/ ($jobs at a time)"
  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release > .cache/configure.log 2>&1 ||
    stop "cmake failed; its last lines: $(tail -n 15 .cache/configure.log)"
  ninja -C build -j "$jobs" "$@"
}

# Minimal container images leave manual pages and documentation out of what they install: then the packages are unpacked
# into a folder of our own.
text_root() {
  local file
  for file in "${TEXT_FILES[@]}"; do
    if [ ! -e "$file" ]; then
      unpack_text >&2
      printf '%s\n' .cache/text
      return
    fi
  done
  printf '/\n'
}

unpack_text() {
  [ ! -e .cache/text/complete ] || return 0
  rm -rf .cache/text
  mkdir -p .cache/text/packages
  (cd .cache/text/packages && apt-get -qq -o APT::Sandbox::User=root download "${TEXT_PACKAGES[@]}")
  local package
  for package in .cache/text/packages/*.deb; do
    dpkg-deb -x "$package" .cache/text
  done
  touch .cache/text/complete
}

prepare_text() {
  local tool=.venv/bin/python root
  if [ ! -e corpus/text.jsonl ]; then
    say "Text: the King James Bible, Linux's manual pages, two Debian books"
    root=$(text_root)
    "$tool" launch/prepare/corpus.py --out=corpus/text.jsonl --root="$root"
  fi
  prepare_tokens text train:bpe:4096
  prepare_tokens wordpiece train:wordpiece:4096
}

# prepare_tokens NAME TOKENIZER: corpus/NAME/train and corpus/NAME/heldout; the meta file of the first is written last.
prepare_tokens() {
  if [ -e "corpus/$1/train.meta.json" ]; then
    say "Tokens: corpus/$1 is there"
    return
  fi
  say "Tokens: corpus/$1 ($2)"
  .venv/bin/python launch/prepare/prepare.py --input=corpus/text.jsonl --tokenizer="$2" --heldout=0.05 \
    --out="corpus/$1/train" --heldout_out="corpus/$1/heldout"
}

# set_up PACKAGE…: with packages beyond those that the build needs.
set_up() {
  mkdir -p .cache
  install_packages "$@"
  python_packages .venv requirements.txt
}
