# nomad job run deploy/nomad/albatros.nomad.hcl    (Albatros itself on the cluster; secrets first, as docs/how-to/nomad.md says)
job "albatros" {
  namespace = "ci"
  node_pool = "all"
  type      = "service"

  # The data directory is on one node: its keys and, without PostgreSQL and a shared store, everything else.
  constraint {
    attribute = "${meta.albatros}"
    value     = "true"
  }

  group "server" {
    count = 1

    network {
      port "http" {
        static       = 8080
        host_network = "loopback"
      }
    }

    # The proxy with the certificate stands in front, on the same node.
    service {
      name     = "albatros"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "5s"
      }
    }

    # Runners wait ten minutes for a server that is away, so one that moves loses no build.
    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "delay"
    }

    shutdown_delay = "2s"

    task "serve" {
      driver       = "raw_exec"
      kill_signal  = "SIGINT"
      kill_timeout = "30s"

      config {
        command = "/opt/albatros/.venv/bin/albatros"
        args    = ["serve", "--config", "${NOMAD_SECRETS_DIR}/albatros.toml"]
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/albatros.toml"
        perms       = "0400"
        data        = <<-TOML
          {{ with nomadVar "nomad/jobs/albatros" }}
          [server]
          listen = "127.0.0.1:8080"
          url = "{{ .url }}"
          data = "/var/lib/albatros"

          [database]
          url = "{{ .database_url }}"

          [executor]
          kind = "nomad"

          [nomad]
          addresses = ["https://127.0.0.1:4646"]
          ca_file = "/etc/nomad.d/ca.pem"
          namespace = "ci"
          node_pool = "ci"
          token = "{{ .nomad_token }}"

          [[forges]]
          name = "home"
          kind = "gitea"
          url = "{{ .forge_url }}"
          token = "{{ .forge_token }}"
          webhook_secret = "{{ .webhook_secret }}"
          {{ end }}
        TOML
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
