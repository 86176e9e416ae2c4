#!/usr/bin/env bash
# Runs a training command and, when it ends by a fault, starts it again from its newest checkpoint.
#   scripts/run-resilient.sh TIMES COMMAND...
#   scripts/run-resilient.sh 5 mpirun -np 8 build/lectern train recipe.toml
# TIMES: restarts at most. The restarts add --resume (so does the first start when the run folder is to be
# gone on with: give --resume yourself). Bad usage (exit status 2) is not tried again. A signal to this
# script goes to the command, which saves and leaves; then nothing is started again.
set -uo pipefail
if [ $# -lt 2 ] || ! [[ $1 =~ ^[0-9]+$ ]]; then
  echo "usage: scripts/run-resilient.sh TIMES COMMAND..." >&2
  exit 2
fi
times=$1
shift
command=("$@")
stopped=
child=
stop() {
  stopped=$1
  # mpirun hands SIGUSR1 on to its ranks and leaves them the time to save; on SIGTERM it would not.
  [ -n "$child" ] && kill -USR1 "$child" 2>/dev/null
}
trap 'stop TERM' TERM
trap 'stop INT' INT
trap 'stop HUP' HUP
trap 'stop USR1' USR1

for ((attempt = 0; ; ++attempt)); do
  "${command[@]}" &
  child=$!
  status=0
  wait "$child" || status=$?
  # A trapped signal ends wait early; the command is still saving.
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  [ $status -eq 0 ] && exit 0
  if [ -n "$stopped" ]; then
    echo "run-resilient: stopped by SIG$stopped; go on with --resume" >&2
    exit $status
  fi
  if [ $status -eq 2 ] || [ $attempt -ge "$times" ]; then
    echo "run-resilient: exit status $status after $attempt restarts; given up" >&2
    exit $status
  fi
  echo "run-resilient: exit status $status; restart $((attempt + 1)) of $times" >&2
  case " ${command[*]} " in *" --resume "*) ;; *) command+=(--resume) ;; esac
done
