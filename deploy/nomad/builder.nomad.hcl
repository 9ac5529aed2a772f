# nomad job run builder.nomad.hcl
#
# A builder of your own (docs/how-to/bring-your-own-builder.md): it clones the commit and runs `make ci`. Replace the last
# lines of the script by what builds and publishes your repo.
job "builder" {
  namespace = "ci"
  node_pool = "ci"
  type      = "batch"

  # Albatros gives these four, and no payload.
  parameterized {
    payload       = "forbidden"
    meta_required = ["REPO_URL", "COMMIT", "BRANCH"]
    meta_optional = ["FLAVOR"]
  }

  # The group and the task have to have these names.
  group "runner" {
    # A program that ended has ended: Albatros tries again what the cluster, and not the commit, was at fault for.
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    # A lost node's allocation is not replaced: it may still run, where nobody sees it.
    disconnect {
      lost_after = "24h"
      replace    = false
    }

    ephemeral_disk {
      size = 1000
    }

    task "executor" {
      # Or docker, podman or raw_exec, as your nodes have it.
      driver = "exec"

      config {
        command = "/bin/sh"
        args    = ["local/build"]
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
          echo "building $NOMAD_META_BRANCH ($NOMAD_META_COMMIT)"
          make ci FLAVOR="$NOMAD_META_FLAVOR"
        EOT
      }

      # What it publishes with is its own; give it to this job alone:
      #   nomad var put nomad/jobs/builder registry_password=…
      # template {
      #   destination = "secrets/registry"
      #   change_mode = "noop"
      #   data        = "{{ with nomadVar \"nomad/jobs/builder\" }}{{ .registry_password }}{{ end }}"
      # }

      resources {
        cpu    = 1000
        memory = 1024
      }

      # Albatros reads a log once a second and keeps limits.log_bytes of it.
      logs {
        max_files     = 10
        max_file_size = 10
      }

      kill_timeout = "30s"
    }
  }
}
