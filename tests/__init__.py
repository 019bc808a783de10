import let_titan as let_titan  # before torchtitan, which looks for a device when imported
