#!/usr/bin/env bash
# One Ray node, in the foreground, until it is stopped or its Ray dies. The other launch scripts call it.
#
#   node.sh head   --address HOST:PORT [options]      HOST: this machine's address, as the other nodes see it
#   node.sh worker --address HOST:PORT [options]      HOST:PORT: the head's
#
#   --name NAME         what this node is called in logs (default: the host's name)
#   --logs DIR          where its output and Ray's own logs go (default: runs/cluster)
#   --temp-dir DIR      Ray's working files; a short path on a local disk (default: Ray's own)
#   --gpus N --cpus N   what it offers; by default what Ray finds. With VERL_PLATFORM=cpu N simulated GPUs.
#   --interface NAME    network interface for NCCL and Gloo, for example eth0 or ib0
#   --wait S            how long a worker waits for the head (default: 300)
#   --offset N          N > 0: a further node on the same machine; moves all ports out of the way of the others
#   --directory DIR     the folder in which the run works; must be the same on every node (default: the current one)
#   --environment FILE  variables for this node and its workers: lines of `export NAME=VALUE`, read by bash
#   --token-file FILE   Ray's shared secret (RAY_AUTH_TOKEN_PATH); must be the same on every node
#   --dry-run           print what would run
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
project="$(cd "$here/../.." && pwd)"
# shellcheck source=scripts/cluster/lib.sh
source "$here/lib.sh"

role="${1:-}"
[[ $role == head || $role == worker ]] || die 2 "say what this node is: node.sh head|worker --address HOST:PORT"
shift
address='' name="$(hostname)" logs="$project/runs/cluster" temp_dir='' gpus='' cpus='' interface='' wait=300 offset=0
token="${RAY_AUTH_TOKEN_PATH:-}" directory='' environment='' dry_run=0
while (($#)); do
  case $1 in
    --dry-run) dry_run=1 && shift && continue ;;
    --address | --name | --logs | --temp-dir | --gpus | --cpus | --interface | --wait | --offset | --token-file | \
      --directory | --environment)
      need_value "$@"
      ;;&
    --address) address=$2 ;;
    --name) name=$2 ;;
    --logs) logs=$2 ;;
    --temp-dir) temp_dir=$2 ;;
    --gpus) need_number "$@" && gpus=$2 ;;
    --cpus) need_number "$@" && cpus=$2 ;;
    --interface) interface=$2 ;;
    --wait) need_number "$@" && wait=$2 ;;
    --offset) need_number "$@" && offset=$2 ;;
    --token-file) token=$2 ;;
    --directory) directory=$2 ;;
    --environment) environment=$2 ;;
    *) die 2 "unknown option $1" ;;
  esac
  shift 2
done
[[ $address == *:* ]] || die 2 "--address must be HOST:PORT, got '$address'"
host="${address%:*}" port="${address##*:}"
need_number --address "$port"
((port < 10002 || port > 19999)) || die 2 "port $port: 10002 to 19999 are those of Ray's workers; choose another"

if [[ -n $directory ]]; then # Ray's workers inherit the folder of their node
  cd "$directory" 2>/dev/null || die 2 "$(hostname): no folder $directory; the run works in it on every node"
fi
if [[ -n $environment ]] && ! ((dry_run)); then
  [[ -r $environment ]] || die 2 "$environment: no such file of variables"
  # shellcheck source=/dev/null
  source "$environment"
fi

# Ray 2.60 turns token authentication on wherever a token file happens to exist: set it on every node, the same way.
if [[ -n $token ]]; then
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token"
  ((dry_run)) || [[ -s $token ]] || die 2 "$token: no such token file, or it is empty"
else
  export RAY_AUTH_MODE="${RAY_AUTH_MODE:-disabled}"
fi
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
if [[ ${VERL_PLATFORM:-} == cpu ]]; then # workers inherit this node's environment, not the driver's
  export RAY_enable_worker_prestart="${RAY_enable_worker_prestart:-0}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
fi
if [[ -n $interface ]]; then
  export NCCL_SOCKET_IFNAME="$interface" GLOO_SOCKET_IFNAME="$interface"
fi

command=("$(find_python)" -W ignore -m ray.scripts.scripts start --block --disable-usage-stats)
if [[ $role == head ]]; then
  # The dashboard answers jobs; nothing of ours needs it, and it would be one more open port.
  command+=(--head "--node-ip-address=$host" "--port=$port" --include-dashboard=false)
else
  command+=("--address=$address")
fi
if [[ -n $temp_dir && ($role == head || $offset -gt 0) ]]; then
  command+=("--temp-dir=$temp_dir") # on other machines a worker takes the head's
fi
[[ -z $cpus ]] || command+=("--num-cpus=$cpus")
if [[ -n $gpus && ${VERL_PLATFORM:-} == cpu ]]; then
  command+=("--num-gpus=$gpus") # real GPUs are counted by Ray, so that a missing one is noticed
fi
if ((offset > 0)); then # several nodes on one machine: disjoint ports
  first=$((20000 + (offset - 1) * 600))
  command+=("--node-ip-address=$host" "--min-worker-port=$first" "--max-worker-port=$((first + 500))"
    "--dashboard-agent-listen-port=$((first + 501))" "--dashboard-agent-grpc-port=$((first + 502))"
    "--metrics-export-port=$((first + 503))" "--runtime-env-agent-port=$((first + 504))")
fi

if ((dry_run)); then
  for variable in RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME NCCL_DEBUG; do
    [[ -z ${!variable:-} ]] || printf '%s=%q ' "$variable" "${!variable}"
  done
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi

mkdir -p "$logs"
ray_log="$logs/$name.ray.log"
if [[ $role == head ]]; then
  ! port_answers "$host" "$port" ||
    die 2 "port $port of $host is busy: another Ray head or program listens there. Choose another with --port."
else
  wait_for_port "$host" "$port" "$wait" || die 2 "no Ray head answers at $address after $wait s"
fi

ray=''
# shellcheck disable=SC2317,SC2329  # called by the trap
clean_up() {
  local status=$?
  trap - EXIT
  trap '' TERM INT HUP
  end_group "$ray" 20
  if [[ -n $temp_dir && -d $temp_dir/session_latest/logs ]]; then
    mkdir -p "$logs/$name.ray-session"
    cp -r "$temp_dir/session_latest/logs/." "$logs/$name.ray-session/" 2>/dev/null ||
      say "could not collect all of $temp_dir/session_latest/logs"
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

setsid "${command[@]}" >"$ray_log" 2>&1 </dev/null &
ray=$!
say "$role $name started; $ray_log"
status=0
wait "$ray" || status=$?
say "Ray on $name ended with status $status. The end of $ray_log:"
tail -n 5 "$ray_log" >&2
exit "$((status == 0 ? 1 : status))"
