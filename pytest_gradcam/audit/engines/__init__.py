"""Where an audit is computed: `local`, in this process; `ray`, on the actors of a cluster. The rows are the same."""
