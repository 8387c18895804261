#!/usr/bin/env bash
# A Slurm of one node, for tests: `slurm.sh start FOLDER` writes FOLDER/slurm.conf and starts munged,
# slurmctld and slurmd; `slurm.sh stop FOLDER` ends them. For root, without systemd and without accounting.
# Needs Debian's packages slurm-wlm and munge. Use it with SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail
what=$1 folder=$(realpath -m "$2") host=$(hostname -s)

stop() {
    SLURM_CONF=$folder/slurm.conf scancel --user "$(id -un)" 2>/dev/null || true
    for daemon in slurmd slurmctld munged; do
        [[ -s $folder/$daemon.pid ]] || continue
        local pid=$(<"$folder/$daemon.pid")
        kill "$pid" 2>/dev/null || continue
        timeout 5 tail --pid="$pid" -f /dev/null || kill -9 "$pid" 2>/dev/null || true
    done
}

start() {
    mkdir -p "$folder"/{state,spool,munge}
    # A daemon and a key of our own, so that nothing of a real cluster's is touched.
    chmod 700 "$folder/munge" && chmod 755 "$folder"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
    chown -R "$(id -u):$(id -g)" "$folder/munge"
    local free=()
    mapfile -t free < <(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for each in held:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in held), sep="\n")')
    cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munged.socket,cred_expire=5  # how long a requeued job waits
SlurmctldPort=${free[0]}
SlurmdPort=${free[1]}
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=2
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides  # two processors, however many there are
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    munged --key-file="$folder/munge/key" --socket="$folder/munged.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --force 2>"$folder/munged.err"
    export SLURM_CONF=$folder/slurm.conf
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF" -N "$host"
    for _ in $(seq 60); do
        sinfo -h -o %T 2>/dev/null | grep -qx idle && return
        sleep 0.5
    done
    tail -n 5 "$folder"/slurm*.log >&2
    stop
    return 1
}

"$what"
