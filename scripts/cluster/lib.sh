# Shared by the launch scripts; to be sourced. Needs bash 5.1 or newer.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() { # STATUS MESSAGE
  local status=$1
  shift
  say "$*"
  exit "$status"
}

need_value() { # OPTION [VALUE]: an option that came without its value
  [[ $# -ge 2 && -n $2 ]] || die 2 "$1 needs a value"
}

need_number() { # OPTION VALUE
  [[ $2 =~ ^[0-9]+$ ]] || die 2 "$1 $2: must be a whole number"
}

find_python() { # the interpreter of the environment: $PYTHON, .venv of $project, python3
  local candidate
  # shellcheck disable=SC2154  # the caller sets $project
  for candidate in "${PYTHON:-}" "$project/.venv/bin/python" python3; do
    if [[ -n $candidate ]] && command -v "$candidate" >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  die 2 "no Python found; set PYTHON to the one of your verl environment"
}

port_answers() { # HOST PORT
  # shellcheck disable=SC2016  # $0 and $1 are the inner shell's
  timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

wait_for_port() { # HOST PORT SECONDS
  local deadline=$((SECONDS + $3))
  until port_answers "$1" "$2"; do
    ((SECONDS < deadline)) || return 1
    sleep 1
  done
}

make_token() { # FILE: a new secret for Ray, readable by its owner only
  (
    umask 077
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$1"
  )
}

# Ends a process that is the leader of its own group, and the group: SIGTERM, then SIGKILL.
end_group() { # PID SECONDS
  [[ -n ${1:-} ]] || return 0
  kill -TERM -- "-$1" 2>/dev/null || return 0
  local deadline=$((SECONDS + $2))
  while kill -0 -- "-$1" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      kill -KILL -- "-$1" 2>/dev/null
      break
    fi
    sleep 0.2
  done
}

# The variables of this shell that the nodes of a run need, as lines that a shell can read. Secrets are among them: the
# text goes into a file of the owner's or over a pipe, never onto a command line or into a log.
environment_of() { # NAME ...
  local name
  for name in "$@"; do
    [[ -z $name || -z ${!name:-} ]] || printf 'export %s=%q\n' "$name" "${!name}"
  done
}
