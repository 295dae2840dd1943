"""The planner's tool: replays traces through the decision code of the live service.

    trace        normal form: jobs, tenants and nodes; its reader, writer and validation
    importers    public formats -> normal form
    synthetic    seeded bursts
    simulation   virtual clock, and a model of kube-scheduler and the kubelets
    baselines    first-in-first-out and fixed partitions, behind the engine's interface
    fluid        minute-by-minute division of demand curves, without single jobs
    metrics      what became of the jobs
    audit        whether the promises were kept, judged from outside
    report       JSON, HTML and the table on the screen
    __main__     the command line

Of the service it imports `scheduler.core` and nothing else.
"""
