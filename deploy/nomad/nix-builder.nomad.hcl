# nomad job run -var image=IMAGE nix-builder.nomad.hcl    (IMAGE: one with nix, git and a shell at /bin/sh, by digest)
#
# A builder of your own (docs/how-to/bring-your-own-builder.md) that keeps its Nix store from one build to the next: the
# host volume `nix` is mounted at /nix, and a nix-daemon beside the build is the one that writes there. Fill an empty
# volume once from the image, since it hides what the image has at /nix:
#
#   docker run --rm -v /srv/nix-builder:/target IMAGE cp -a /nix/. /target/
variable "image" {
  type        = string
  description = "container image with nix, git and /bin/sh"
}

job "nix-builder" {
  namespace = "ci"
  node_pool = "ci"
  type      = "batch"

  parameterized {
    payload       = "forbidden"
    meta_required = ["REPO_URL", "COMMIT", "BRANCH"]
    meta_optional = ["FLAVOR"]
  }

  group "runner" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    disconnect {
      lost_after = "24h"
      replace    = false
    }

    volume "nix" {
      type   = "host"
      source = "nix-builder"
    }

    task "nix-daemon" {
      driver = "docker"

      # Up before the build, and ended by Nomad with it.
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image   = var.image
        command = "nix-daemon"
        # Nix builds in its sandbox, for which a daemon in a container needs the rights of its host.
        privileged = true
      }

      env {
        NIX_CONFIG = <<-EOT
          sandbox = true
          sandbox-fallback = false
          trusted-users = root
          min-free = 5368709120
          max-free = 21474836480
        EOT
      }

      volume_mount {
        volume      = "nix"
        destination = "/nix"
      }

      resources {
        cpu    = 2000
        memory = 4096
      }
    }

    task "executor" {
      driver = "docker"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["${NOMAD_TASK_DIR}/build"]
      }

      env {
        NIX_REMOTE = "daemon"
        NIX_CONFIG = "experimental-features = nix-command flakes"
      }

      volume_mount {
        volume      = "nix"
        destination = "/nix"
        read_only   = true
      }

      # Read the variables in the script. In `args` Nomad would put their text into the command, and a branch may be
      # called $(anything).
      template {
        destination = "local/build"
        change_mode = "noop"
        data        = <<-EOT
          set -eu
          cd "$NOMAD_TASK_DIR"
          git init -q source
          cd source
          git fetch -q --depth 1 -- "$NOMAD_META_REPO_URL" "$NOMAD_META_COMMIT"
          git checkout -q FETCH_HEAD
          tries=0
          until nix store ping 2> /dev/null; do
            tries=$((tries + 1))
            [ "$tries" -lt 60 ] || { echo "the nix-daemon did not come up" >&2; exit 1; }
            sleep 1
          done
          nix build --no-link --print-build-logs .
        EOT
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
