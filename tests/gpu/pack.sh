#!/usr/bin/env bash
# Packs what the checks need on a machine with GPUs that reaches no network: a Docker engine that knows CDI (Debian 13's),
# Redis and RabbitMQ with Erlang (Debian 12's), and the locked Python packages. About 60 MB, for x86-64.
#   pack.sh OUT.tar.xz [PYTHON]     PYTHON: the version that is there (3.12)
# Runs as root on Debian 12, and installs nothing there. On the machine: offline.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "$1")
python=${2:-3.12}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{bundle/engine,root,lists/partial,cache/archives/partial}

# Debian 13's programs run with an older C library, but for runc.
debian() { # RELEASE PACKAGE…: unpacked into root
  local release=$1
  shift
  sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | head -1 |
    sed "s#.*#deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] & $release main#" >"$work/sources.list"
  local apt=(-oDir::Etc::SourceList="$work/sources.list" -oDir::Etc::SourceParts=/dev/null -oDir::State::Lists="$work/lists"
    -oDir::Cache="$work/cache" -oDir::State::status=/dev/null -oAPT::Sandbox::User=root)
  apt-get "${apt[@]}" -qq update
  (cd "$work" && apt-get "${apt[@]}" -qq download "$@" && for file in *.deb; do dpkg -x "$file" root; done && rm ./*.deb)
}

debian trixie docker.io docker-cli containerd
mv "$work"/root/usr/sbin/dockerd "$work"/root/usr/bin/{docker,containerd,containerd-shim-runc-v2} "$work/bundle/engine/"
rm -rf "$work/root"/*
debian bookworm runc tini
mv "$work/root/usr/sbin/runc" "$work/bundle/engine/"
mv "$work/root/usr/bin/tini-static" "$work/bundle/engine/docker-init"
rm -rf "$work/root"/*
debian bookworm redis-server redis-tools liblzf1 libjemalloc2 libatomic1 libtinfo6 libseccomp2 rabbitmq-server \
  erlang-{base,asn1,crypto,inets,mnesia,os-mon,public-key,runtime-tools,ssl,syntax-tools,tools,xmerl}

# Of the servers only what they run: no plugins, sources, or debug information.
cd "$work/root"
rm -rf etc var lib/systemd usr/share usr/lib/ocf usr/lib/tmpfiles.d usr/lib/rabbitmq/lib/*/escript
mkdir -p usr/lib && [ ! -d lib ] || { cp -a lib/. usr/lib/ && rm -rf lib; }
for folder in usr/lib/rabbitmq/lib/*/plugins/*/; do
  case $(basename "$folder") in
    amqp10_client-* | amqp_client-* | rabbitmq_prelaunch-*) ;;
    rabbitmq_* | cowboy-* | cowlib-* | eetcd-* | gun-* | jose-* | prometheus-* | accept-*) rm -rf "$folder" ;;
  esac
done
find usr/lib/erlang usr/lib/rabbitmq -type d \( -name src -o -name include -o -name examples -o -name doc -o -name man \) \
  -prune -exec rm -rf {} +
erts=$(echo "$PWD"/usr/lib/erlang/erts-*/bin)
ROOTDIR=$PWD/usr/lib/erlang BINDIR=$erts EMU=beam PROGNAME=erl "$erts/erlexec" -noshell -eval \
  'beam_lib:strip_files(filelib:wildcard("usr/lib/**/*.beam"), ["Attr"]), halt().' # RabbitMQ finds its boot steps there
cd - >/dev/null
mv "$work/root" "$work/bundle/root"

tools='cryptography|cffi|pycparser|requests|certifi|charset-normalizer|urllib3|supervisor'
awk -v "tools=^($tools)==" '/^[a-z]/ { is_tool = $0 ~ tools } is_tool' requirements-dev.txt >"$work/tools.txt"
python3 -m pip install --quiet --disable-pip-version-check --no-compile --target "$work/bundle/site" \
  --python-version "$python" --implementation cp --only-binary=:all: \
  --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --require-hashes --requirement requirements.txt --requirement "$work/tools.txt"
find "$work/bundle" -type f \( -name '*.so*' -o -perm -u+x \) -exec strip --strip-unneeded {} + 2>/dev/null || true

mkdir -p "$(dirname "$out")"
tar -C "$work/bundle" -c . | xz -T0 --x86 --lzma2=preset=9 >"$out"
ls -l "$out"
