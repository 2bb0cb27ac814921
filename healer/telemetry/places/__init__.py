"""What schedulers' words mean for topology: Kubernetes labels, kube-state-metrics, Slurm."""
