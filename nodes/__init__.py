"""The processes: tier nodes, planner, watch, and the command line. The only place where pipeline and broker meet."""
