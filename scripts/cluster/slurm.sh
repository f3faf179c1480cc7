#!/usr/bin/env bash
# slurm.sh COMMAND...: runs a command with a Slurm of two nodes, both on this machine over loopback, and ends it again.
# Needs root and Debian's packages slurm-wlm and munge. A job sees two nodes of one core each; nothing is left behind.
set -euo pipefail
for program in munged slurmctld slurmd sinfo; do
  command -v "$program" >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd starts as root only" >&2; exit 3; }

dir=$(mktemp -d /tmp/slurm-XXXXXX)
pids=()
end() {
  if [ -n "${up:-}" ]; then
    # Jobs and their slurmstepd would outlive the daemons.
    scancel --user "$(id -un)" 2>/dev/null || true
    for _ in $(seq 120); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.5; done
  fi
  kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap end EXIT

mkdir -m 755 "$dir/munge" "$dir/state" "$dir/n1" "$dir/n2"
dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none
chmod 600 "$dir/munge/key"
chmod 755 "$dir"
cat >"$dir/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${SLURM_PORT:-16817}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/ctld.pid
SlurmdPidFile=$dir/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MessageTimeout=60
KillWait=10
MailProg=/bin/true
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-16817} + 1)) CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-16817} + 2)) CPUs=1 RealMemory=1000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$dir/slurm.conf LOOPBACK_SLURM=$dir/slurm.conf

munged --foreground --force --key-file "$dir/munge/key" --socket "$dir/munge/socket" --pid-file "$dir/munge/pid" \
  --log-file "$dir/munge/log" --seed-file "$dir/munge/seed" >/dev/null 2>&1 &
pids+=($!)
for _ in $(seq 50); do [ -S "$dir/munge/socket" ] && break; sleep 0.1; done
slurmctld -D -f "$SLURM_CONF" >"$dir/ctld.log" 2>&1 &
pids+=($!)
for node in n1 n2; do
  slurmd -D -N "$node" -f "$SLURM_CONF" >"$dir/$node.log" 2>&1 &
  pids+=($!)
done
for _ in $(seq 100); do
  [ "$(sinfo -h -N -t idle 2>/dev/null | wc -l)" = 2 ] && break
  sleep 0.3
done
[ "$(sinfo -h -N -t idle | wc -l)" = 2 ] || { sinfo >&2; tail -5 "$dir"/*.log >&2; exit 1; }
up=1
"$@"
