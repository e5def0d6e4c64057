#!/bin/bash
# One training by SLURM, a process for each GPU:
#   sbatch --nodes 2 --gpus-per-node 8 --ntasks-per-node 8 scripts/slurm.sh \
#       -c configs/cdcd/aist.yaml -c configs/overlays/multinode.yaml --trainer.num_nodes 2 --run runs/aist
# Nodes, GPUs and tasks here and in --trainer must agree. COMMAND=test measures the run in the same way.
#SBATCH --job-name=mmdiffusion
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
set -eu
exec srun --kill-on-bad-exit=1 mmdiffusion "${COMMAND:-fit}" "$@"
