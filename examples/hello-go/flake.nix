{
  description = "A multi-platform container image with nixpkgs and dockerTools";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.05";

  outputs = { self, nixpkgs }:
    let
      # All are cross builds on this system; remote builders of other systems are not needed.
      builder = "x86_64-linux";

      platforms = {
        x86_64-linux = { architecture = "amd64"; GOARCH = "amd64"; };
        aarch64-linux = { architecture = "arm64"; GOARCH = "arm64"; };
        i686-linux = { architecture = "386"; GOARCH = "386"; };
        armv6l-linux = { architecture = "arm"; GOARCH = "arm"; GOARM = "6"; };
      };

      pkgs = import nixpkgs { system = builder; };

      packagesFor = platform: rec {
        default = (pkgs.buildGoModule {
          pname = "hello";
          version = "0.1.0";
          src = ./src;
          vendorHash = null;
          doCheck = false;
          ldflags = [ "-s" "-w" ];
        }).overrideAttrs (old: {
          # A static binary needs no cross compiler but Go itself.
          env = old.env // { CGO_ENABLED = "0"; GOOS = "linux"; } // removeAttrs platform [ "architecture" ];
        });
        docker = pkgs.dockerTools.buildImage {
          name = "hello";
          tag = "latest";
          inherit (platform) architecture;
          copyToRoot = [ default ];
          config.Entrypoint = [ "/bin/hello" ];
        };
      };
    in
    {
      packages = builtins.mapAttrs (system: packagesFor) platforms;
    };
}
