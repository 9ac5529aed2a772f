# nomad node pool apply ci-pool.hcl    (the nodes whose client.hcl says node_pool = "ci")
node_pool "ci" {
  description = "nodes that build for Albatros"
}
