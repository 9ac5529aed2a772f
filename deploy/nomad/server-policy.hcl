# nomad acl policy apply -namespace ci albatros deploy/nomad/server-policy.hcl
# nomad acl token create -name albatros -policy albatros -type client    (its Secret ID is `nomad.token`)
namespace "ci" {
  capabilities = ["list-jobs", "read-job", "submit-job", "dispatch-job", "read-logs"]

  variables {
    path "nomad/jobs/*" {
      capabilities = ["list", "read", "write", "destroy"]
    }
  }
}

node {
  policy = "read"
}

agent {
  policy = "read"
}
