# nomad agent -config=/etc/nomad.d    (a worker that builds; copy this file into /etc/nomad.d beside the agent's own)
client {
  enabled   = true
  node_pool = "ci"

  # What its Nix builds, separated by commas. `nix_sandbox` says that Nix builds in its sandbox here:
  # without it the node gets no build of a stranger.
  meta {
    nix_system  = "x86_64-linux,i686-linux"
    nix_sandbox = "true"
  }

  # Only for the drivers exec, docker and podman: the store that they mount at /nix.
  host_volume "nix" {
    path      = "/nix"
    read_only = false
  }

  # Only for the node that Albatros itself runs on, beside `albatros = "true"` in its meta:
  # host_network "loopback" {
  #   interface = "lo"
  # }

  options = {
    # Nomad's questions to clouds that are not there take seconds at each start.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}
