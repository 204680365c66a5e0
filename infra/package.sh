#!/usr/bin/env bash
# Packages the app for the Functions host: `app/` for `func start` and `func azure functionapp publish`, and
# `coremachine.zip`, the same files for every other way to deploy.
#
#   infra/package.sh                  builds the static Linux x64 release into dist/ and checks the package
#   infra/package.sh --binary FILE    packages FILE as the handler instead, unchecked
#   infra/package.sh --out DIR        leaves the package in DIR
#
# Needs Rust, Node 18 or later, and a C compiler for one dependency.
set -euo pipefail

target=x86_64-unknown-linux-musl

fail() {
  printf 'package.sh: %s\n' "$1" >&2
  exit 1
}

# The C part of one dependency (ring) must be compiled for musl. It uses nothing of a C library but memcpy and its
# like, so that glibc's compiler does as well, as long as it adds no calls of glibc's own.
choose_c_compiler() {
  command -v musl-gcc >/dev/null && return
  [ -n "${CC_x86_64_unknown_linux_musl:-}" ] && return
  if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then
    { apt-get install -y musl-tools || { apt-get update && apt-get install -y musl-tools; }; } >/dev/null 2>&1 || true
    command -v musl-gcc >/dev/null && return
  fi
  command -v cc >/dev/null || fail 'no C compiler: install musl-gcc (on Debian and Ubuntu: apt-get install musl-tools)'
  [ "$(uname -sm)" = 'Linux x86_64' ] || fail 'no musl-gcc, and the plain C compiler of this machine does not build for Linux x64'
  export CC_x86_64_unknown_linux_musl=cc
  export CFLAGS_x86_64_unknown_linux_musl='-U_FORTIFY_SOURCE -fno-stack-protector'
}

build() {
  if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
    rustup target add "$target" || fail "the Rust target $target is not installed, and rustup could not add it"
  fi
  choose_c_compiler
  cargo build --release --locked --target "$target" --bin coremachine
  local directory
  directory=$(cargo metadata --no-deps --format-version 1 --locked |
    node -p 'JSON.parse(require("fs").readFileSync(0, "utf8")).target_directory')
  binary=$directory/$target/release/coremachine
}

lay_out() {
  rm -rf "$out/app"
  mkdir -p "$out/app"
  local executable function_json function local_settings
  # The mode bit survives `func azure functionapp publish` only on the entry that has this name letter by letter.
  executable=$(node -p 'require("./host.json").customHandler.description.defaultExecutablePath')
  install -m 0755 "$binary" "$out/app/$executable"
  install -m 0644 host.json "$out/app/host.json"
  for function_json in function_*/function.json; do
    function=$(dirname "$function_json")
    install -d -m 0755 "$out/app/$function"
    install -m 0644 "$function_json" "$out/app/$function_json"
  done
  # For `func start` alone; nothing publishes it.
  local_settings=local.settings.json
  [ -f "$local_settings" ] || local_settings=local.settings.json.example
  install -m 0600 "$local_settings" "$out/app/local.settings.json"
}

binary=
out=dist
while [ $# -gt 0 ]; do
  case $1 in
    --binary) [ $# -gt 1 ] || fail '--binary needs a file'; binary=$(realpath -- "$2"); shift 2 ;;
    --out) [ $# -gt 1 ] || fail '--out needs a folder'; out=$(realpath -m -- "$2"); shift 2 ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;;
    *) fail "unknown argument \`$1\`; try --help" ;;
  esac
done
cd "$(dirname "$0")/.."
out=$(realpath -m -- "$out")
command -v node >/dev/null || fail 'Node is needed to write the zip file'

if [ -n "$binary" ]; then
  [ -f "$binary" ] || fail "$binary is not a file"
  lay_out
  node infra/zip.mjs "$out/app" "$out/coremachine.zip" 1
else
  build
  lay_out
  node infra/zip.mjs "$out/app" "$out/coremachine.zip" 9
  COREMACHINE_APP=$out/app cargo test --quiet --locked --test it app_folder
fi
printf '%s\n%s\n' "$out/app" "$out/coremachine.zip"
