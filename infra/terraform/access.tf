# Who may do what stands in policies/*.json; here they are attached to somebody.
#
# Listing is limited to a prefix where one is asked for (`IfExists`): S3 answers 404 for an object
# that is not there only to those who may list, and a reader that waits for a manifest needs that.

locals {
  root = var.prefix == "" ? "" : "${var.prefix}/"
  names = {
    bucket    = aws_s3_bucket.store.arn
    root      = local.root
    topic     = aws_sns_topic.publications.arn
    consumers = var.consumer_principals
    publisher = aws_iam_role.publisher.arn
  }
}

data "aws_iam_policy_document" "bucket" {
  source_policy_documents = concat(
    [templatefile("${path.module}/policies/bucket.json", local.names)],
    length(var.consumer_principals) == 0 ? [] : [
      templatefile("${path.module}/policies/bucket-consumers.json", local.names)
    ],
  )
}

# The publisher: what the workers are.

data "aws_iam_policy_document" "publisher_trust" {
  dynamic "statement" {
    for_each = length(var.publisher_principals) == 0 ? [] : [var.publisher_principals]

    content {
      actions = ["sts:AssumeRole"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }

  dynamic "statement" {
    for_each = var.kubernetes == null ? [] : [var.kubernetes]

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [statement.value.provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${statement.value.issuer}:sub"
        values   = statement.value.subjects
      }

      condition {
        test     = "StringEquals"
        variable = "${statement.value.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role" "publisher" {
  name                 = "${var.name}-publisher"
  description          = "Writes analyses, forecasts and verification; removes no version of anything."
  assume_role_policy   = data.aws_iam_policy_document.publisher_trust.json
  max_session_duration = 43200
  tags                 = var.tags

  lifecycle {
    precondition {
      condition     = length(var.publisher_principals) > 0 || var.kubernetes != null
      error_message = "Give publisher_principals or kubernetes: nobody could take the role."
    }
  }
}

resource "aws_iam_role_policy" "publisher" {
  name   = "publish"
  role   = aws_iam_role.publisher.id
  policy = templatefile("${path.module}/policies/publisher.json", local.names)
}

# Retention: the only one that may hide a published forecast, by the written rule.

data "aws_iam_policy_document" "retention_trust" {
  count = length(var.retention_principals) == 0 ? 0 : 1

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.retention_principals
    }
  }
}

resource "aws_iam_role" "retention" {
  count              = length(data.aws_iam_policy_document.retention_trust)
  name               = "${var.name}-retention"
  description        = "Deletes what the retention rule names; versions stay until the lifecycle takes them."
  assume_role_policy = data.aws_iam_policy_document.retention_trust[count.index].json
  tags               = var.tags
}

resource "aws_iam_role_policy" "retention" {
  count  = length(aws_iam_role.retention)
  name   = "retain"
  role   = aws_iam_role.retention[count.index].id
  policy = templatefile("${path.module}/policies/retention.json", local.names)
}

# Consumers of this account attach this policy; others are named in the bucket's.

resource "aws_iam_policy" "consumer" {
  name        = "${var.name}-consumer"
  description = "Reads published forecasts and verification."
  policy      = templatefile("${path.module}/policies/consumer.json", local.names)
  tags        = var.tags
}
