#!/bin/sh
# Installs what `npm run bench` compares with and can't bring along itself: Debian's PgBouncer, and pgbench where it is
# missing. Run it as root on Debian or Ubuntu; without it the bench leaves these out and says so.
set -eu

wanted=
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || wanted="$wanted pgbouncer"
command -v pgbench >/dev/null || ls /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1 || wanted="$wanted postgresql-contrib"
if [ -z "$wanted" ]; then
  echo 'pgbouncer and pgbench are here already'
  exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "this needs apt-get, as root, for:$wanted" >&2
  exit 1
fi
# Runlevel 1 keeps the packages from starting services: the bench starts its own, in a directory of its own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -q
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $wanted
# At the next boot neither: the package enables a service that nobody here has asked for.
case "$wanted" in
  *pgbouncer*) command -v systemctl >/dev/null && systemctl disable pgbouncer >/dev/null 2>&1 || true ;;
esac
