#!/usr/bin/env bash
# Runs a script of this folder with the Python of the oracle's virtual environment
# (scripts/oracle-venv.sh makes it), looked for in $LECTERN_ORACLE_VENV, build/oracle-venv and
# /var/tmp/oracle-venv. Exits 77 where there is none: ctest then reports "skipped".
#
# usage: tests/oracle/run.sh SCRIPT [ARGUMENT...]
set -euo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
script=$1
shift
for venv in "${LECTERN_ORACLE_VENV:-}" "$folder/../../build/oracle-venv" /var/tmp/oracle-venv; do
  if [ -n "$venv" ] && [ -x "$venv/bin/python3" ]; then
    exec "$venv/bin/python3" "$folder/$script" "$@"
  fi
done
echo "skipped: no virtual environment for the oracle (scripts/oracle-venv.sh makes one)"
exit 77
