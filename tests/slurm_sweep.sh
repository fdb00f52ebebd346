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

readonly CONFIG=configs/smoke.toml
readonly TIMEOUT_SECONDS=900
# Training steps of a task that takes longer than the 20 s after which its job is told to stop.
readonly LONG_STEPS=${LONG_STEPS:-35000}
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
    elif timeout 20 sinfo --noheader >/dev/null 2>&1; then
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
    timeout "$TIMEOUT_SECONDS" sbatch --wait --job-name="$job_name" --output="$log" "$@"
}

submit_demo() { submit demo --time=20 jobs/demo.sbatch "$CONFIG" "$work/sweep"; }

submit_sweep() {
    submit "$1" --time=20 --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --gpus-per-node=0 \
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

# Two tasks that take longer than Slurm's shortest limit lets them, a minute with the signal 40 s before its end.
long_config() {
    sed -e 's/^temperatures = .*/temperatures = [2.0, 2.7]/' -e 's/^depths = .*/depths = [2]/' \
        -e "s/^steps = .*/steps = $LONG_STEPS/" "$CONFIG" >"$work/long.toml"
}

# One process for each task, at once: jobs on one folder share its tasks.
unbroken_run() {
    long_config
    "$NEURALRG" run "$work/long.toml" -o "$work/unbroken" &
    "$NEURALRG" run "$work/long.toml" -o "$work/unbroken"
    wait $!
}

# Waits until a job, requeued or not, with all its elements has been gone from the queue for some seconds.
wait_for_job() {
    local second gone=0
    for ((second = 0; second < TIMEOUT_SECONDS; second++)); do
        if squeue --noheader --name="$job_name" --format=%i | grep -q "^$1\(_\|$\)"; then
            gone=0
        elif ((++gone == 6)); then
            return 0
        fi
        sleep 1
    done
    return 1
}

job_beyond_its_limit_requeues_itself() {
    local job
    job=$(sbatch --parsable --job-name="$job_name" --output="$work/long.log" --time=1 --signal=USR1@40 \
        jobs/demo.sbatch "$work/long.toml" "$work/long")
    wait_for_job "$job" && grep -q "requeueing job $job, which goes on where it stopped" "$work/long.log" &&
        grep -q "goes on with train" "$work/long.log" && grep -q "2 of 2 tasks" "$work/long.log"
}

same_as_unbroken() { "$PYTHON" tests/same_tasks.py "$work/long" "$work/unbroken"; }

array_elements_do_a_task_each() {
    local job
    job=$(sbatch --parsable --job-name="$job_name" --output="$work/array-%a.log" --time=5 --array=0-3 \
        jobs/array.sbatch "$CONFIG" "$work/array")
    wait_for_job "$job" && "$PYTHON" tests/same_tasks.py "$work/array" "$work/sweep" &&
        [[ $(grep -c '"event":"task-done"' "$work/array/events.jsonl") == 4 ]]
}

main() {
    trap clean_up EXIT
    find_slurm
    mkdir -p target
    work=$(mktemp -d "$PWD/target/slurm_sweep.XXXXXX")
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
