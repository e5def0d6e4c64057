#!/bin/bash
# One training by SLURM, a process for each GPU:
#   sbatch --nodes 2 --gpus-per-node 8 --ntasks-per-node 8 scripts/slurm.sh \
#       -c configs/cdcd/aist.yaml -c configs/overlays/multinode.yaml --trainer.num_nodes 2 --run runs/aist
# Nodes, GPUs and tasks here and in --trainer must agree. COMMAND=test measures the run in the same way.
# Two minutes before the time is up the training writes a checkpoint and ends with status 75; the job is queued again and goes on.
#SBATCH --job-name=mmdiffusion
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -u
# Said again, for since SLURM 22.05 srun no longer takes it from above.
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" mmdiffusion "${COMMAND:-fit}" "$@"
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
