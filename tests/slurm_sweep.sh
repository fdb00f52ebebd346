#!/usr/bin/env bash
# Submits small sweeps to a real Slurm with the project's own job scripts, edited as a user would
# do on sbatch's command line, and checks what they leave behind.
#
# The Slurm is a private one of this machine, started and stopped here (scripts/slurm-node), or one
# that already answers. Where there is neither, the test is skipped; as root on Debian it never is.
# shellcheck disable=SC2329 # most functions are called through check, or by the trap
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PATH:/usr/sbin:/sbin

# A number times NEURALRG_TEST_TIME, whole and at least 1.
scaled() { awk -v number="$1" -v factor="${NEURALRG_TEST_TIME:-1}" 'BEGIN { n = int(number * factor); print (n > 1 ? n : 1) }'; }

readonly CONFIG=configs/smoke.toml
# Seconds after which a job or Slurm itself hangs, and minutes that a job may take: no outcome depends on these.
PATIENCE=$(scaled 3600)
MINUTES=$(scaled 60)
readonly PATIENCE MINUTES
# The task that is held until its job's time is up, and the step of its training in which it is.
readonly HELD_TASK=L4_T2_d2_s1
readonly HELD_STEP=100
readonly PYTHON=.venv/bin/python
# From the log the check learns which rank ran what.
export RUST_LOG=info
export NEURALRG=${NEURALRG:-$PWD/target/release/neuralrg}

passed=0
failed=0
skipped=0
job_name=neuralrg-test-$$
node=''
work=''

summary_and_exit() {
    echo "$passed passed, $failed failed, $skipped skipped"
    ((failed == 0)) || exit 1
    exit 0
}

clean_up() {
    local status=$?
    if [[ -n $node ]]; then
        scripts/slurm-node stop "$node" || true
        rm -rf "$node"
    else
        scancel --name="$job_name" 2>/dev/null || true
    fi
    [[ -z $work ]] || rm -rf "$work"
    exit "$status"
}

# Runs a check and counts it; on failure shows what the check and the jobs had to say.
check() {
    local sentence=$1
    shift
    if "$@" >"$work/check.txt" 2>&1; then
        echo "ok: $sentence"
        passed=$((passed + 1))
    else
        echo "FAILED: $sentence"
        failed=$((failed + 1))
        show_logs
    fi
}

show_logs() {
    local log
    for log in "$work/check.txt" "$work"/*.log ${node:+"$node/slurmctld.log" "$node/slurmd.log"}; do
        [[ -s $log ]] || continue
        echo "--- $(basename "$log")"
        tail -n 40 "$log"
    done
}

has_slurm_programs() {
    local program
    for program in sbatch slurmctld slurmd munged; do
        command -v "$program" >/dev/null || return 1
    done
}

find_slurm() {
    if has_slurm_programs; then
        node=$(mktemp -d /tmp/neuralrg-slurm.XXXXXX)
        scripts/slurm-node start "$node"
        export SLURM_CONF=$node/slurm.conf
    elif timeout "$PATIENCE" sinfo --noheader >/dev/null 2>&1; then
        echo "using the Slurm that answers here"
    elif ((EUID == 0)) && command -v apt-get >/dev/null; then
        echo "FAILED: Slurm is missing; scripts/setup --test installs it"
        failed=1
        summary_and_exit
    else
        echo "skipped: no Slurm here, and not root on Debian to install one"
        skipped=1
        summary_and_exit
    fi
}

# Submits and waits; the exit status is the job's.
submit() {
    local log=$work/$1.log
    shift
    timeout "$PATIENCE" sbatch --wait --job-name="$job_name" --output="$log" --time="$MINUTES" "$@"
}

# Makes the program NAME, which holds its processes at known points of their work: see tests/all/common/shim.c.
make_held_program() {
    local name=$1
    shift
    mkdir "$work/$name.held"
    cat >"$work/$name" <<PROGRAM
#!/bin/bash
# A requeued job is held no more.
if [[ -z \${SLURM_RESTART_COUNT:-} ]]; then
    export LD_PRELOAD=$work/shim.so SHIM_DIR=$work POINT_HELD=$work/$name.held $*
fi
exec "$NEURALRG" "\$@"
PROGRAM
    chmod +x "$work/$name"
}

make_held_programs() {
    cc -shared -fPIC -O1 -o "$work/shim.so" tests/all/common/shim.c -ldl
    # Both ranks begin a task before one of them goes on.
    make_held_program meeting POINT=/running/ POINT_MEET=2
    make_held_program waiting POINT="$HELD_TASK.previous" POINT_FROM="$HELD_STEP"
}

submit_demo() { NEURALRG=$work/meeting submit demo jobs/demo.sbatch "$CONFIG" "$work/sweep"; }

submit_sweep() {
    submit "$1" --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --gpus-per-node=0 \
        jobs/sweep.sbatch "${@:2}"
}

sweep_is_complete() { "$PYTHON" tests/slurm_sweep_check.py "$CONFIG" "$work/sweep" "$work/demo.log"; }

sum_of_tasks() { cat "$work"/sweep/tasks/*.h5 | sha256sum; }

submitting_again_keeps_finished_tasks() {
    local before
    before=$(sum_of_tasks)
    submit_sweep again "$CONFIG" "$work/sweep" && [[ $(sum_of_tasks) == "$before" ]]
}

missing_arguments_are_refused() {
    ! submit_sweep usage && grep -q "usage: sbatch jobs/sweep.sbatch CONFIG DIR" "$work/usage.log"
}

# Two tasks, each step of which is saved.
long_config() {
    sed -e 's/^temperatures = .*/temperatures = [2.0, 2.7]/' -e 's/^depths = .*/depths = [2]/' \
        -e 's/^\[run\]/[run]\ncheckpoint_minutes = 1e-12/' "$CONFIG" >"$work/long.toml"
}

# One process for each task, at once: jobs on one folder share its tasks.
unbroken_run() {
    long_config
    "$NEURALRG" run "$work/long.toml" -o "$work/unbroken" &
    "$NEURALRG" run "$work/long.toml" -o "$work/unbroken"
    wait $!
}

# Waits until a command succeeds.
wait_for() {
    local second
    for ((second = 0; second < PATIENCE; second++)); do
        if "$@"; then
            return
        fi
        sleep 1
    done
    echo "waited in vain for: $*"
    return 1
}

states() { squeue --noheader --states=all --jobs="$1" --format=%T 2>/dev/null; }

# A job that is to be requeued is pending, or completing, until it starts again. Slurm forgets one some minutes after its end.
job_has_ended() { ! states "$1" | grep -qvE '^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY)$'; }

job_waits() { states "$1" | grep -qx PENDING; }

# A task of the job is held, the other one is done: nothing is left to do but what is held.
only_held_task_is_left() {
    compgen -G "$work/waiting.held/*" >/dev/null && compgen -G "$work/long/tasks/*.h5" >/dev/null
}

minutes_since_start() {
    local start
    start=$(squeue --noheader --jobs="$1" --format=%S)
    echo $((($(date +%s) - $(date --date="$start" +%s)) / 60))
}

# Its time limit is set when one of its tasks is held, which cannot go on before Slurm has told it that the time is up.
job_beyond_its_limit_requeues_itself() {
    local job
    job=$(NEURALRG=$work/waiting sbatch --parsable --job-name="$job_name" --output="$work/long.log" \
        --time="$MINUTES" jobs/demo.sbatch "$work/long.toml" "$work/long")
    wait_for only_held_task_is_left || return
    # Slurm tells it a minute before the end.
    scontrol update JobId="$job" TimeLimit=$(($(minutes_since_start "$job") + 2))
    wait_for job_waits "$job" || return
    # Slurm's own administrators may raise a limit; others leave it to requeue itself as often as it must.
    scontrol update JobId="$job" TimeLimit="$MINUTES" || true
    wait_for job_has_ended "$job" && grep -q "requeueing job $job, which goes on where it stopped" "$work/long.log" &&
        grep -q "task $HELD_TASK stops after train $((HELD_STEP + 1))/200" "$work/long.log" &&
        grep -q "task $HELD_TASK goes on with train $((HELD_STEP + 2))/200" "$work/long.log" &&
        grep -q "2 of 2 tasks" "$work/long.log"
}

same_as_unbroken() { "$PYTHON" tests/same_tasks.py "$work/long" "$work/unbroken"; }

array_elements_do_a_task_each() {
    local job
    job=$(sbatch --parsable --job-name="$job_name" --output="$work/array-%a.log" --time="$MINUTES" --array=0-3 \
        jobs/array.sbatch "$CONFIG" "$work/array")
    wait_for job_has_ended "$job" && "$PYTHON" tests/same_tasks.py "$work/array" "$work/sweep" &&
        [[ $(grep -c '"event":"task-done"' "$work/array/events.jsonl") == 4 ]]
}

main() {
    trap clean_up EXIT
    find_slurm
    mkdir -p target
    work=$(mktemp -d "$PWD/target/slurm_sweep.XXXXXX")
    make_held_programs
    check "demo.sbatch runs the sweep on two ranks to its end" submit_demo
    check "sweep.h5 holds every task, and both ranks took part" sweep_is_complete
    check "sweep.sbatch submitted on the same directory keeps finished tasks" submitting_again_keeps_finished_tasks
    check "sweep.sbatch without arguments ends with its usage" missing_arguments_are_refused
    check "array.sbatch does one task per element" array_elements_do_a_task_each
    check "an unbroken run of two processes on one folder" unbroken_run
    check "a job that needs more than its time limit requeues itself until it is done" job_beyond_its_limit_requeues_itself
    check "its task files are those of the unbroken run" same_as_unbroken
    summary_and_exit
}

main
