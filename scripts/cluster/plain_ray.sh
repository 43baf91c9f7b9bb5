#!/usr/bin/env bash
# Train on several machines that this one can reach with ssh. This machine is the head. Run from the project's folder,
# which must exist under the same path on every machine, with the same environment (docs/cluster.md).
#
#   scripts/cluster/plain_ray.sh --workers "node2 node3" -- RECIPE [key=value ...]
#
#   --workers "HOST ..."   ssh names of the other machines; `local` is a further node on this one (for trying it out)
#   --address HOST         this machine's address, as the others see it (default: the first of `hostname -I`)
#   --port N               port of the head (default: 6379)
#   --gpus N --cpus N      of each node; see node.sh
#   --interface NAME       network interface for NCCL and Gloo
#   --logs DIR             logs of all nodes (default: runs/cluster/<time>)
#   --temp-dir DIR         Ray's working files (default: a new folder under /tmp)
#   --timeout S            how long to wait until all nodes are there (default: 300)
#   --ssh "COMMAND"        how to reach a machine (default: "ssh -tt -o BatchMode=yes -o ServerAliveInterval=15")
#   --dry-run              check the recipe, print what would run on which machine, and stop
#
# After `--`: the arguments of `verl-air launch`. The exit status is that of the training; 2 for a fault that is reported
# before it starts, 75 if a node was lost, 128 + N after signal N.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
project="$(cd "$here/../.." && pwd)"
# shellcheck source=scripts/cluster/lib.sh
source "$here/lib.sh"

workers=() host='' port=6379 gpus='' cpus='' interface='' logs='' temp_dir='' timeout=300 dry_run=0
ssh=(ssh -tt -o BatchMode=yes -o ServerAliveInterval=15)
while (($#)); do
  case $1 in
    --) shift && break ;;
    --dry-run) dry_run=1 && shift && continue ;;
    --workers | --address | --port | --gpus | --cpus | --interface | --logs | --temp-dir | --timeout | --ssh)
      need_value "$@"
      ;;&
    --workers) read -ra workers <<<"$2" ;;
    --address) host=$2 ;;
    --port) need_number "$@" && port=$2 ;;
    --gpus) need_number "$@" && gpus=$2 ;;
    --cpus) need_number "$@" && cpus=$2 ;;
    --interface) interface=$2 ;;
    --logs) logs=$2 ;;
    --temp-dir) temp_dir=$2 ;;
    --timeout) need_number "$@" && timeout=$2 ;;
    --ssh) read -ra ssh <<<"$2" ;;
    *) die 2 "unknown option $1 (arguments of the training go after --)" ;;
  esac
  shift 2
done
(($#)) || die 2 "nothing to train: add -- RECIPE"
[[ -n $host ]] || host="$(hostname -I | cut -d' ' -f1)"
[[ -n $logs ]] || logs="$project/runs/cluster/$(date +%Y%m%d-%H%M%S)"
python="$(find_python)"
address="$host:$port"

common=(--address "$address" --logs "$logs" --directory "$PWD")
[[ -z $gpus ]] || common+=(--gpus "$gpus")
[[ -z $cpus ]] || common+=(--cpus "$cpus")
[[ -z $interface ]] || common+=(--interface "$interface")
launch=("$python" -W ignore -m verl_air launch --address "$address" --timeout "$timeout")

# A recipe that cannot work is reported before any node is started. What a remote machine needs of this environment,
# the token included, travels on stdin and is never on a command line.
names="$("${launch[@]}" --variables "$@")"
mapfile -t forwarded <<<"$names"
secrets=/tmp/verl-air.XXXXXX
((dry_run)) || secrets="$(mktemp -d "$secrets")"
token="$secrets/ray-token"
temp_dir="${temp_dir:-$secrets/ray}"
if ! ((dry_run)); then
  mkdir -p "$logs"
  make_token "$token"
fi
common+=(--token-file "$token")

remote_command() { # NAME
  printf '%q ' bash "$here/node.sh" worker --name "$1" --temp-dir "$temp_dir" --wait "$timeout" "${common[@]}" \
    --environment "$secrets/environment"
}
local_worker=(bash "$here/node.sh" worker --wait "$timeout" "${common[@]}")

if ((dry_run)); then
  echo "# here: the head"
  bash "$here/node.sh" head --name head --temp-dir "$temp_dir" "${common[@]}" --dry-run
  for i in "${!workers[@]}"; do
    if [[ ${workers[i]} == local ]]; then
      echo "# here: a further node"
      "${local_worker[@]}" --name "local-$((i + 1))" --temp-dir "$temp_dir-$((i + 1))" --offset "$((i + 1))" --dry-run
    else
      echo "# on ${workers[i]}, once the token and these variables are there: ${forwarded[*]}"
      printf '%s %s %s\n' "${ssh[*]}" "${workers[i]}" "$(remote_command "${workers[i]}")"
    fi
  done
  echo "# here: the training"
  "${launch[@]}" --dry-run "$@"
  exit
fi

nodes=() training=''
# shellcheck disable=SC2317,SC2329  # called by the trap
clean_up() {
  local status=$? pid
  trap - EXIT
  trap '' TERM INT HUP
  if [[ -n $training ]]; then
    kill -TERM "$training" 2>/dev/null || true
    wait "$training" 2>/dev/null || true
  fi
  for pid in "${nodes[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${nodes[@]}"; do wait "$pid" 2>/dev/null || true; done
  for i in "${!workers[@]}"; do
    [[ ${workers[i]} == local ]] || "${ssh[@]}" "${workers[i]}" "rm -rf $secrets" </dev/null >/dev/null 2>&1 || true
  done
  rm -rf "$secrets"
  say "logs: $logs; exit status $status"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token"

bash "$here/node.sh" head --name head --temp-dir "$temp_dir" "${common[@]}" </dev/null &
nodes+=($!)
head=$!
until port_answers "$host" "$port"; do
  kill -0 "$head" 2>/dev/null || { wait "$head" || exit $?; exit 1; }
  sleep 0.5
done
for i in "${!workers[@]}"; do
  worker="${workers[i]}"
  if [[ $worker == local ]]; then
    "${local_worker[@]}" --name "local-$((i + 1))" --temp-dir "$temp_dir-$((i + 1))" --offset "$((i + 1))" </dev/null &
  else
    { cat "$token" && echo && environment_of "${forwarded[@]}"; } | "${ssh[@]/-tt/-T}" "$worker" \
      "umask 077; mkdir -p $secrets && read -r key && printf %s \"\$key\" > $token && cat > $secrets/environment" ||
      die 2 "cannot reach $worker with: ${ssh[*]} $worker"
    "${ssh[@]}" "$worker" "$(remote_command "$worker")" </dev/null >"$logs/$worker.node.log" 2>&1 &
  fi
  nodes+=($!)
done

"${launch[@]}" "$@" &
training=$!
status=0
finished=''
wait -n -p finished "$training" "$head" || status=$?
if [[ $finished == "$head" ]]; then
  say "the head node is gone; see $logs/head.ray.log"
  exit 75 # a fault at its start was reported above
fi
training=''
exit "$status"
