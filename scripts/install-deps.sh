#!/usr/bin/env bash
# Installs everything that building, testing and quickstart need on Debian 12: the one list of packages.
# Does nothing when all are there. Needs root (or sudo) only when something is missing.
set -euo pipefail

packages=(
  # build
  g++ cmake ninja-build ccache pkg-config git ca-certificates
  # libraries
  libdnnl-dev libhdf5-dev libfmt-dev libspdlog-dev libtomlplusplus-dev libcli11-dev
  nlohmann-json3-dev libpcre2-dev libutf8proc-dev libspng-dev libjpeg62-turbo-dev
  libprotobuf-dev libkainjow-mustache-dev libgtest-dev zlib1g-dev libssl-dev libcairo2-dev libpango1.0-dev
  # several ranks: mpirun and the library that it starts
  libopenmpi-dev openmpi-bin
  # documents: poppler's programs run as child processes; the encodings of East Asian PDFs
  poppler-utils poppler-data
  # fonts, about 15 MB: fonts-liberation has the widths of those that a PDF may name without bringing
  # them (without it, ink leaves its box); synthetic samples are drawn with all of these
  fonts-dejavu-core fonts-dejavu-extra fonts-liberation fonts-freefont-ttf fonts-cmu
  fonts-linuxlibertine fonts-open-sans fonts-ebgaramond fonts-crosextra-carlito
  fonts-crosextra-caladea fonts-inconsolata fonts-sil-gentium fonts-oldstandard
  fonts-courier-prime
)

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "install-deps: run as root, or install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "install-deps: installing ${missing[*]}"
log=$(mktemp)
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
       apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install-deps: apt-get failed (above)" >&2
  exit 1
fi
rm -f "$log"
